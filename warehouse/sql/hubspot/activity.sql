-- new_activity: HubSpot tells dates of activities, which stand on the deal, and no activities.
create or replace temp table new_activity as
from core.activity limit 0;
