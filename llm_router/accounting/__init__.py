"""What it cost: tokens, prices, ledger, metrics."""
