-- Days since something, and when the user looked, are not read of Salesforce any more. They were not taken from us: no run is to say so.
delete from core.field
where object = 'Opportunity' and source in (select source from core.source where crm = 'salesforce')
  and name in ('AgeInDays', 'LastActivityInDays', 'LastStageChangeInDays', 'LastReferencedDate', 'LastViewedDate');
