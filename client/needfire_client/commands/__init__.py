"""The verbs of needfire-agent, one module each: ``run(options)`` returns the exit status."""
