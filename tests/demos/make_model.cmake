# A checkpoint with a tokenizer and a chat template, small enough to be made on the spot: -D WRITER=.. -D SOURCE=.. -D OUT=..
execute_process(COMMAND ${WRITER} ${SOURCE}/tests/golden/fixtures/llama.json ${OUT} COMMAND_ERROR_IS_FATAL ANY)
file(GLOB tokenizer ${SOURCE}/tests/cli/data/tiny_tokenizer/*)
file(COPY ${tokenizer} DESTINATION ${OUT})
