"""What the server keeps: registered clients, their states, commands, proposals and events."""
