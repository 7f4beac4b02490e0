"""The demo's report: `page` writes the HTML, every other module adds the section of its job."""
