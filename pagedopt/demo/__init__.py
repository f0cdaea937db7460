"""The main job: a small GPT that learns real text with paged optimizers, side by side with torch's AdamW."""
