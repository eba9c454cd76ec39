"""What a person looks at: contact sheets and annotated copies of videos."""
