"""Contact sheets, reports and annotated copies of videos."""
