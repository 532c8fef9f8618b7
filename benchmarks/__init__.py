"""How long a deploy takes, beside the tools that people use and beside a script that does no more than it must."""
