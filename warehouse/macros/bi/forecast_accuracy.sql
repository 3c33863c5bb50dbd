-- How good the forecasts of a lock day were (bi.forecast), measured at the owners: the errors of two owners do not cancel, as they do where a team's sum is
-- compared. Of each source, and of all.
--   source: name of the source; NULL for all
--   method: commit, best_case, pipeline or weighted
--   owners: owners with a forecast or a win
--   forecast_home: sum of the forecasts
--   actual_home: won
--   wape: sum of the absolute errors / actual; NULL where nothing was won
--   accuracy: 1 - wape, at least 0
--   bias: sum of the errors / actual: above 0 promised too much, below 0 too little
create or replace macro bi.forecast_accuracy(lock_day, period_start, period_end) as table
select source, method, count(*) as owners, sum(forecast_home)::decimal(38, 2) as forecast_home, sum(actual_home)::decimal(38, 2) as actual_home,
       sum(abs(error_home))::double / nullif(sum(actual_home), 0)::double as wape,
       greatest(0, 1 - sum(abs(error_home))::double / nullif(sum(actual_home), 0)::double) as accuracy,
       sum(error_home)::double / nullif(sum(actual_home), 0)::double as bias
from bi.forecast(lock_day, period_start, period_end)
group by grouping sets ((source, method), (method));
