"""Fine-tuning AST with `Trainer` on `datasets` audio columns: data, augmentation, metrics, recipes."""
