"""The record of a run for others: an RO-Crate of what was asked, what ran where, and what came out; and back again."""
