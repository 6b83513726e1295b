.PHONY: run test studies study report setup

run:     ; python3 run.py
test:    ; python3 run.py test
studies: ; python3 run.py studies
study:   ; python3 run.py study
report:  ; python3 run.py report
setup:   ; python3 run.py setup
