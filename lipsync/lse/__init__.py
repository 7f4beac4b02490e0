"""LSE-C and LSE-D, the lip-sync scores that papers on talking faces report, from the weights of SyncNet."""
