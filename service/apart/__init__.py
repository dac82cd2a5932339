"""Work on what strangers sent, done in a child process that can be killed, whatever it reads."""
