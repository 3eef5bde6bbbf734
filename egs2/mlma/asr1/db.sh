# shellcheck shell=bash
# Folders of corpora outside --db_root.
# shellcheck disable=SC2034
LIBRISPEECH=    # with train-clean-100 and so on
COMMONVOICE=    # with cv-corpus-20.0-2024-12-06
VOXPOPULI=      # with raw_audios and transcribed_data
MLS=            # with mls_french, mls_dutch_opus and so on
FLEURS=         # with data/<language>
SYNTHETIC=${SYNTHETIC:-}  # with <lang>.txt: free text in en, it, fr, es, de and nl
GRANARY=        # with <lang>/{voxpopuli,yodas,ytc}/*.jsonl; audio in audio/<source> or beside it
MOSEL=          # with <lang>/voxpopuli.tsv and others; audio as for GRANARY
YOUTUBE_COMMONS=  # with *.parquet; audio as for GRANARY
PSEUDO=         # with <lang>.jsonl of `mlma data label`, and audio/
