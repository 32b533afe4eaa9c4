"""What a checkpoint folder holds, checked before it is used: fields, tensors and their names, adapters."""
