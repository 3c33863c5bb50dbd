-- The same, by source and pipeline.
select source, pipeline, count(*) as deals, sum(amount_home) as amount,
    sum(amount_home * probability)::decimal(38, 2) as weighted,
    coalesce(sum(amount_home) filter (where is_at_risk), 0) as at_risk_amount,
    count(*) filter (where is_flagged) / count(*) as flagged_share,
    count(*) over () as pipelines
from report_deal
group by source, pipeline
order by amount desc nulls last, source, pipeline
limit $limit
