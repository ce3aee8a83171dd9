"""What a replica goes through in its life: restarts, overwrites for hours, snapshots, damage, crashes, new members."""
