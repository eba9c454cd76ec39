"""The tables and figures of the paper from finished runs, and the page that shows them (`nemo evaluate`)."""
