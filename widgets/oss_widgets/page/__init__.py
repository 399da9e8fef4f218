"""One web page in which nano runs, with its views and a guided path.

write.py         write_page: puts everything into one file
trace.py         what of a stored trace fits
gallery_data.py  the questions to offer
command.py       `oss-lab page`
"""
