"""gRPC as every part of lookonce speaks it: typed errors, servers that drain, channels that notice a lost peer."""
