"""What a command of the command line does, one file each."""
