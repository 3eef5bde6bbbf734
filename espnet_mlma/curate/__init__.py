"""Programs before stage 1: get, describe, compare, label and add corpora (`mlma data`)."""
