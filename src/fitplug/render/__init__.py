"""What people and scripts see: pages for terminals and pipes, and the contract's JSON."""
