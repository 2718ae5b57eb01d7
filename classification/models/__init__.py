"""Networks, their initial weights and the checkpoint that describes them."""
