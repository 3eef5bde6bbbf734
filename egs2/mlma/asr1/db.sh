# shellcheck shell=bash
# Where corpora lie that are not under --db_root. Each is the folder named behind it.
# shellcheck disable=SC2034
LIBRISPEECH=    # LibriSpeech, with train-clean-100 and so on in it
COMMONVOICE=    # the folder of cv-corpus-20.0-2024-12-06
VOXPOPULI=      # the folder of raw_audios and transcribed_data
MLS=            # the folder of mls_french, mls_dutch_opus and so on
FLEURS=         # the folder of data/<language>
SYNTHETIC=${SYNTHETIC:-}  # the folder of <lang>.txt, free text in en, it, fr, es, de and nl
