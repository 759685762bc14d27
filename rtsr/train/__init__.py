"""Training in three stages: autoencoder, flow, one-step refinement (needs the extra ``train``)."""
