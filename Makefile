.PHONY: run test study setup

run:    ; python3 run.py
test:   ; python3 run.py test
study:  ; python3 run.py study
setup:  ; python3 run.py setup
