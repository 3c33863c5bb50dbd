"""Everything that is DuckDB: landed files -> raw -> core -> bi, stage model, write-back plans, publishing."""
