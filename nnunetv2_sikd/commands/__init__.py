"""The command ``nnUNetv2_sikd``: one module per subcommand, heavy imports only where it runs."""
