"""A page of panels: layout, drawing and files; knows no explanation."""
