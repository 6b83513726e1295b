.PHONY: run test studies study setup

run:     ; python3 run.py
test:    ; python3 run.py test
studies: ; python3 run.py studies
study:   ; python3 run.py study
setup:   ; python3 run.py setup
