"""What our networks share: backbone, positions, attention that is called with its parts apart."""
