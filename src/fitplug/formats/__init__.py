"""What model files hold besides their weights: bytes → `Header`. Pure, bounded, fast."""
