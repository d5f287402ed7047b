"""Where gateways come from: this machine, one that already runs, Modal."""
