"""The exercises, one module per lesson; `oss_lab.course.write_sheets` makes notebooks of them."""
