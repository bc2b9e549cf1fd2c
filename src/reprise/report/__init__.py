"""`reprise report`: all runs on one HTML page that works offline."""
