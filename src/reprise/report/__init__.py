"""`reprise report`: all runs on one page that needs nothing but a browser."""
