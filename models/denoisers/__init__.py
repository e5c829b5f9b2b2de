"""Networks that are told a time beside their input, and the separators made of them."""
