"""What a cluster is and how it comes and goes. Nothing here prints or knows click."""
