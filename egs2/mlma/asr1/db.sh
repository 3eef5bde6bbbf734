# shellcheck shell=bash
# Folders of corpora outside --db_root.
# shellcheck disable=SC2034
LIBRISPEECH=    # with train-clean-100 and so on
COMMONVOICE=    # with cv-corpus-27.0-2026-09-11 and so on; mlma data get commonvoice downloads it
VOXPOPULI=      # with raw_audios and transcribed_data, or Parquet files of the hub
MLS=            # with mls_french, mls_dutch_opus and so on, or Parquet files
FLEURS=         # with data/<language>, or Parquet files
EUROSPEECH=     # with italy, france, germany and uk: Parquet files
SPONTANEOUS=    # with ss-corpus-<lang>.tsv and audios, or a folder of them for each language
SYNTHETIC=${SYNTHETIC:-}  # with <lang>.txt: free text in en, it, fr, es, de and nl
GRANARY=        # with <lang>/{voxpopuli,yodas,ytc}/*.jsonl; audio in audio/<source> or beside it
MOSEL=          # with <lang>/voxpopuli.tsv and others; audio as for GRANARY
YOUTUBE_COMMONS=  # with *.parquet; audio as for GRANARY
PSEUDO=         # with <lang>.jsonl of `mlma data label`, and audio/
