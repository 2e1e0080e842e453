# make bench-http: builds and runs the server's benchmark (ARGS="--http2 --size 100 …").
.PHONY: bench-http
$(BUILD)/bench-http: $(BUILD)/bench/http/main.o $(BUILD)/libnet.a $(BUILD)/libio.a $(BUILD)/libbase.a
	$(Q)echo "  ld bench-http"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
bench-http: $(BUILD)/bench-http
	$(BUILD)/bench-http $(ARGS)
