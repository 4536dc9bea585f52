"""What every package uses: errors, output files, shipped files, progress."""
