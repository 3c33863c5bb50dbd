-- CRM stages that stand for no canonical stage yet, with the open deals in them.
select d.source, d.pipeline, d.crm_stage, any_value(d.stage_label) as label, count(*) as deals, sum(d.amount_home) as amount,
    any_value(m.suggestion) as suggestion, any_value(m.confidence) as confidence, any_value(m.reason) as reason,
    sum(count(*)) over () as all_deals, sum(sum(d.amount_home)) over () as all_amount, count(*) over () as stages
from report_deal d
left join core.stage_map m on m.source = d.source and m.pipeline = d.pipeline and m.crm_stage = d.crm_stage
where d.stage = 'unmapped'
group by d.source, d.pipeline, d.crm_stage
order by amount desc nulls last, deals desc, d.source, d.pipeline, d.crm_stage
limit $limit
