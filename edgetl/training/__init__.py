"""From samples to a trained head: finetune() and what it is made of."""
