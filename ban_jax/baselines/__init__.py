"""What a candidate is compared with: profiles of clean models, and crowds."""
