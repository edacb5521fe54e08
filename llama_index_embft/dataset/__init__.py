"""The data set and what is done to it before training: reading documents, checking, splitting."""
