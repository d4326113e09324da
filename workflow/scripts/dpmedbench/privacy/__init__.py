"""The privacy contract: what is promised (plan), how it is drawn (sampling), what it costs
(accounting), and whether it was kept (contract)."""
