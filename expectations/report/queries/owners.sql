-- Owners of scored deals. Five deals and more first, by amount at risk; those with fewer after them, by name: too few to compare.
with issue as (
    select d.source || ':' || coalesce(d.owner_id, '') as owner_key, f.title, count(*) as n,
        max(f.severity_rank) as severity_rank,
        sum(d.amount_home) as amount
    from report_finding f
    join report_deal d on d.opportunity_key = f.opportunity_key
    where f.counts and d.is_counted
    group by all
),
top_issue as (
    select owner_key, title, n
    from issue
    qualify row_number() over (partition by owner_key order by n desc, severity_rank desc, amount desc nulls last, title) = 1
),
named as (
    select source || ':' || coalesce(owner_id, '') as owner_key, any_value(source) as source, any_value(owner_name) as name,
        bool_and(owner_active) as is_active
    from report_deal
    group by owner_key
),
scored as (
    select *, score.deals >= 5 as is_comparable
    from quality.score score
    where run_id = $run and scope = 'owner'
)
select s.scope_key, coalesce(o.name, n.name) as name, coalesce(n.source, o.source, split_part(s.scope_key, ':', 1)) as source,
    o.team, coalesce(n.is_active, o.is_active and o.is_seller) as is_active, s.deals, s.open_amount_home as amount, s.score,
    s.at_risk_amount_home as at_risk_amount, s.at_risk_amount_home / nullif(s.open_amount_home, 0) as at_risk_share,
    s.is_comparable, t.title as top_issue, t.n as top_issue_deals, count(*) over () as owners
from scored s
left join core.owner o on o.owner_key = s.scope_key
left join named n on n.owner_key = s.scope_key
left join top_issue t on t.owner_key = s.scope_key
order by s.is_comparable desc, case when s.is_comparable then s.at_risk_amount_home end desc nulls last, name nulls last,
    s.scope_key
limit $limit
