-- stage_seen: the stages that deals of the source are or were in, and what their flags say. on_deals: not only the map knows it.
create or replace temp table stage_seen as
with seen as (
    select pipeline, crm_stage, is_closed, is_won, true as on_deals from core.opportunity where source = getvariable('source')
    union all
    select pipeline, crm_stage, is_closed, is_won, true from deal
    union all
    -- A stage that only history knows: nothing says whether it was a closed one.
    select d.pipeline, t.crm_stage, NULL, NULL, true from stage_told t join deal d using (opportunity_id)
    union all
    select pipeline, crm_stage, if(is_active, NULL, is_closed), if(is_active, NULL, is_won), false
    from core.stage_map
    where source = getvariable('source')
)
select pipeline, crm_stage, bool_or(is_closed) as is_closed, bool_or(is_won) as is_won, bool_or(on_deals) as on_deals
from seen
where crm_stage is not null and pipeline is not null
group by pipeline, crm_stage;
