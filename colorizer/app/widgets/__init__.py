"""What the pages share. Only the pages and these widgets import Streamlit."""
