"""What a plan is made of: the steps, their encoding, and the request that a verb makes."""
